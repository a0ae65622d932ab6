//! Weights that people already have: PyTorch's files and the authors' folder, read without executing anything in them.
