"""The verbs, one file each, in the order a job meets them: admit, dispatch, attempt, decide, settle."""
