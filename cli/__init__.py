"""The parts that every command of this project shares: how it starts and ends, reads flags, is stopped, and writes.

    command.py     the first and the last line of a command; start reading here
    options.py     options as fields of a dataclass
    arguments.py   flags, whose errors are one line
    streams.py     standard output and error that cannot stop a command
    signals.py     Ctrl-C and SIGTERM
    files.py       folders that can be written, files that are whole

Nothing here imports torch or numpy: a command begins with these modules, before the imports that take a second.
"""

VERSION = "1.0.0"
