"""What shows: tables, plots and the PDF, as pure functions of the records of a run's folder."""
