"""What is done with a frame: classify, localize, detect or tag. In-process, without stages or sockets."""
