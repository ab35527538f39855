"""Training: a recipe becomes a run folder that survives interruption; callbacks for one's own `model.fit`."""
