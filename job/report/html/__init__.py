"""report.html: a run as a page to look at, made of the files in its run folder and of nothing else.

The job writes two small files for it (`recorded`), and the page at the end (`writing`). `muster report RUN` makes the
page again from the same files, while the run trains or later. The path of a number: files -> `run_files` -> the
calculations (`calibration`, `label_errors`, ...) -> a section of blocks -> `page`. No torch is imported.
"""
