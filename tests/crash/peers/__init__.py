"""The same power cuts for NoPokeDB and for other embedded databases: one writer, one loop, one way of counting.

`python -m crash.peers` needs root, ext4 on a loop device, and the other databases in an environment of their own
(`make peers`). `child.py` is the process whose power is cut, `__main__.py` cuts, counts and prints the table; each of
the other files is one database, opened as its documentation says for most durability:

    LABEL      its name
    PACKAGES   distributions whose versions are told
    SETTING    what is asked for, in a few words
    Peer       open(folder), add(keys, vectors, texts), read() -> {key: (vector, text)}
"""
