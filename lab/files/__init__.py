"""A lab that keeps its objects itself: its store is a file, our rules decide on what is applied."""
