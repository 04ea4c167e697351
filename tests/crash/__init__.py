"""Crash enumeration: record what a workload asks of its file system, build every folder that a power cut could have
left at any of its operations, and open each one.

    recorder.py   a FUSE file system that keeps everything in memory and writes down each operation
    trace.py      what it wrote down
    recording.py  runs a workload on it and brings back the trace
    workload.py   the process that uses the database on that file system; says what it begins and what was acknowledged
    scenarios.py  what workloads do; a new one is a function here and nothing else
    plants.py     bugs, put into the package by replacing its functions, to prove that the instrument finds such;
                  the bugs themselves are in plants_in_log.py and plants_in_stores.py
    records.py    a record follows from its key and three version numbers, so that any record can be judged by itself
    images.py     the two models of a disk, and the folders that each allows at a point
    checker.py    a process that opens folders and says what is in them
    pool.py       several of those, with a time limit
    enumeration.py    joins the parts: record, build, check, judge, report
    power.py      power cuts on real file systems
    __main__.py   the long run, and the replay of one image
"""
