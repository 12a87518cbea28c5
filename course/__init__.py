"""A course in a box: the student's folder, and the zip for Gradescope (``handout.py``).

    student.py      the files of the student's folder, and those withheld from it; start reading here
    starter.py      the starter models.py, made from ours
    autograder.py   the files of the zip for Gradescope
    hand_in.py      the student's command that makes submission.zip

Beside them lie the texts for students, HOMEWORK.md, homework.ipynb and answers.md, and the two scripts that Gradescope
runs, gradescope/setup.sh and gradescope/run_autograder. ``docs/course.md`` is the instructor's page.
"""
