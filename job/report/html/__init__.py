"""report.html: a page that describes a run, made only from the files in its run folder.

The job writes two small files for it (`recorded`), and the page itself at the end (`writing`). `muster report RUN`
makes the page again from the same files, during the run or later. Data flow: files -> `run_files` -> calculations
(`calibration`, `label_errors`, ...) -> sections, which consist of blocks -> `page`. torch is not imported.
"""
