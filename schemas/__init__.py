"""The language: what a spec may say.

One Python type per kind (frozen, strict: `schemas.base`), and the JSON Schema made from it (`schemas.generate`,
`*.schema.json`), which validates documents and serves editors. `schemas.reader` says what text is legal.
"""
