"""Matching: codebook, target, clearing flow, marginal values, match report; arrays in and out."""
