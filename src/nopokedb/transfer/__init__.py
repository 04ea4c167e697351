"""Import and export: files of other programs to records and back, one module per format.

`importing.import_file` and `exporting.export_file` are the two ways in; `formats` knows which module reads what.
"""
