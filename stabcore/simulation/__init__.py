"""Many runs of gradient descent and SGD at once: the check on every prediction."""
