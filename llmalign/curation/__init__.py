"""Training data made with rewards: problems hard for a model, rubrics out of preferences."""
