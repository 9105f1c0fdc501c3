"""Rollouts made elsewhere: files of any trainer or evaluator, judged, counted, scored, or drawn over steps."""
