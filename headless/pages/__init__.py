"""One self-contained HTML page from headings, tables, figures and text."""
