"""Looking at a whole collection: duplicates, outliers, a map, a forecast. Built on what every engine can do."""
