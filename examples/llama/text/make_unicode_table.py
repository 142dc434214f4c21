#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prints unicode_table.cpp, made from Python's unicodedata. With --check FILE: exit code 0 if FILE is what it would
print, 1 if it differs, 77 if FILE is of another Unicode version than this Python knows."""
import sys
import unicodedata

OTHER, LETTER, NUMBER, SPACE = range(4)


def class_of(code_point):
    category = unicodedata.category(chr(code_point))
    if category[0] == "L":
        return LETTER
    if category[0] == "N":
        return NUMBER
    # White_Space: the separators and the controls that move the cursor; not U+001C-U+001F, which str.isspace() takes.
    if category[0] == "Z" or 0x09 <= code_point <= 0x0D or code_point == 0x85:
        return SPACE
    return OTHER


def table():
    runs, last = [], None
    for code_point in range(0x110000):
        if (kind := class_of(code_point)) != last:
            runs.append(f"0x{code_point << 2 | kind:06x}")
            last = kind
    lines = [f"    {', '.join(runs[i:i + 11])}," for i in range(0, len(runs), 11)]
    return f"""// SPDX-License-Identifier: MIT
// Made by make_unicode_table.py from Unicode {unicodedata.unidata_version}; edit that instead.
#include <algorithm>
#include <iterator>

#include "llama/text/unicode.hpp"

namespace llama {{

namespace {{

// Runs of one class, in order: first code point << 2 | class.
constexpr std::uint32_t kRuns[] = {{
    // clang-format off
{chr(10).join(lines)}
    // clang-format on
}};

}}  // namespace

CharClass class_of(char32_t code_point) {{
  if (code_point > 0x10ffff) return CharClass::other;
  const std::uint32_t last_of_code_point = static_cast<std::uint32_t>(code_point) << 2 | 3u;
  const auto* after = std::upper_bound(std::begin(kRuns), std::end(kRuns), last_of_code_point);
  return static_cast<CharClass>(after[-1] & 3u);
}}

}}  // namespace llama
"""


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        stored = open(sys.argv[2], encoding="utf-8").read()
        if f"Unicode {unicodedata.unidata_version};" not in stored:
            print(f"skipped: this Python knows Unicode {unicodedata.unidata_version}, the table is of another version")
            sys.exit(77)
        sys.exit(0 if stored == table() else f"{sys.argv[2]} is not what make_unicode_table.py prints")
    sys.stdout.write(table())
