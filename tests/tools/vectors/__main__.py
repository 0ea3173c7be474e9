from tests.tools.vectors.files import FILES, PATH

for name, text in FILES.items():
    (PATH / name).write_text(text, encoding="utf-8", newline="\n")
