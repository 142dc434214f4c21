// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>

#include <cstdio>
#include <string>

namespace generate {

/// A line on stderr that tells how far the program is: on a terminal it is written over, elsewhere each is kept.
class StatusLine {
 public:
  StatusLine() = default;
  ~StatusLine() { end(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  /// Seconds between two lines.
  double interval() const { return terminal_ ? 0.5 : 5.0; }
  void show(const std::string& text) {
    std::fprintf(stderr, terminal_ ? "\r%s\x1b[K" : "%s\n", text.c_str());
    shown_ = true;
  }
  /// Leaves what was shown last where it is.
  void end() {
    if (shown_ && terminal_) std::fputc('\n', stderr);
    shown_ = false;
  }

 private:
  bool terminal_ = isatty(STDERR_FILENO) == 1, shown_ = false;
};

}  // namespace generate
