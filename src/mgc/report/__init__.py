"""Reports on the runs of a dataset: a page, a paper, and a bundle of everything."""
