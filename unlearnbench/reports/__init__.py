"""Pages, plots and sentences.

In: the files of a run, or a comparison. Out: report.html (`run_report`), comparison.html, the headline and the
sentence that may be quoted (`headline`). All statistics are those of `scoring`.
"""
