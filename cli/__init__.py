"""Parts that all commands share: start and end, flags, signals, files.

    command.py     start and end of a command, standard streams, errors in one line; start reading here
    options.py     command-line options as fields of a dataclass
    arguments.py   the parser, and flags made from options
    signals.py     Ctrl-C, SIGTERM and SIGHUP, as an exception or an exit status
    files.py       checks of output folders, files that are never half written
    text.py        text that is safe on a terminal

No module here imports torch or numpy, because a command begins with these modules, before its slow imports.
"""

VERSION = "1.0.0"
