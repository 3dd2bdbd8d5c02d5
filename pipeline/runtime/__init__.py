"""Config -> processes: the plan, the one worker loop, the supervisor, run folders, reports."""
