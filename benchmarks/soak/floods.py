trials = actions = parameters = None
