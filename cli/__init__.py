"""Parts that all commands share: start and end, flags, signals, files.

    command.py     start and end of a command, standard streams, errors in one line; start reading here
    options.py     options as fields of a dataclass
    arguments.py   flags, whose errors are one line
    signals.py     Ctrl-C and SIGTERM
    files.py       folders that can be written, files that are never half written

No module here imports torch or numpy, because a command begins with these modules, before imports that take a second.
"""

VERSION = "1.0.0"
