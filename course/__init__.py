"""A course in a box: the student's folder and the zip for Gradescope (``handout.py``).

    student_folder.py   the files of the student's folder, and those that are withheld; start reading here
    starter.py          the starter models.py, made from ours
    autograder.py       the files of the zip for Gradescope
    hand_in.py          the student's command that makes submission.zip

The other files are the students' pages (HOMEWORK.md, homework.ipynb, answers.md) and the two scripts that Gradescope
runs (gradescope/setup.sh, gradescope/run_autograder). ``docs/course.md`` is the instructor's page.
"""
