"""The night's report: one dict, shown as JSON, HTML, Markdown and on the console."""
