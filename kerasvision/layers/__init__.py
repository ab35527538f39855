"""Parts of nets that any family may use: attention plug-ins, and poolings for the classifier."""
