"""The error of every provider of attention against fp64, on normal and adversarial inputs."""
