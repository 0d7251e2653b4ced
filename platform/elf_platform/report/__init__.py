"""The report of a run: one HTML page that works without a network, and its charts as files of their own."""

from elf_platform.report.page import render_figures, write_report

__all__ = ["render_figures", "write_report"]
