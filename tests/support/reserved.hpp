// SPDX-License-Identifier: MIT
#pragma once

#if defined(__linux__)
#include <sys/mman.h>

#include "headwise/core/index.hpp"

namespace headwise::testing {

/// Address space without memory behind it until it is touched.
class Reserved {
 public:
  explicit Reserved(Index bytes)
      : bytes_(static_cast<std::size_t>(bytes)),
        data_(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~Reserved() {
    if (*this) munmap(data_, bytes_);
  }
  Reserved(const Reserved&) = delete;
  Reserved& operator=(const Reserved&) = delete;
  explicit operator bool() const { return data_ != MAP_FAILED; }
  template <class T = float>
  T* data() const {
    return static_cast<T*>(data_);
  }

 private:
  std::size_t bytes_;
  void* data_;
};

}  // namespace headwise::testing
#endif
