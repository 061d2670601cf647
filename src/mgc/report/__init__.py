"""Reports of a data set's runs: a page, a paper, and all of it to hand in."""
