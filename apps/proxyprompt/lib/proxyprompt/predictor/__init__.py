"""Foundation and Proxy Prompt Generator as one: the public predictor, the pipeline behind it, and versions of both."""
