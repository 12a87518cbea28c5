"""The files that are copied beside a submission. They import only the standard library, numpy, torch and each other.

walls.py          the walls around a submission's processes; start reading here
namespaces.py     a wall: a root folder, process numbers and a network of its own
landlock.py       a wall: rights to files, TCP and signals
system_calls.py   a wall: system calls given up (seccomp); and calls that Python lacks
survey.py         the walls that a machine has, and the gaps that they leave
warden.py         the process that runs one session after the other
processes.py      the processes of one session: starting, measuring and ending them
worker.py         the process with the submission's code: it answers questions
arrays.py         a submission's tables, layers and outputs as plain arrays
messages.py       the messages between the grader and a worker
"""
