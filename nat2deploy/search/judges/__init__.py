"""Where architectures are judged: in this process, in local processes, on a Ray cluster."""
