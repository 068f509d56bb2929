"""Benchmarks behind every claim about speed."""
