"""Valuation: semivalues, KNN values, sampled values, quotes, contests; arrays in and out."""
