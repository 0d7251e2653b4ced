"""Texts become numbers that somebody else can reproduce: judges, score records, their comparison."""
