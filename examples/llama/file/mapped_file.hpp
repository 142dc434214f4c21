// SPDX-License-Identifier: MIT
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>

namespace llama {

/// A file as read-only memory, mapped: pages are read when they are touched.
class MappedFile {
 public:
  /// Throws std::runtime_error that names the file and what is wrong with it.
  explicit MappedFile(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe would wait
    if (descriptor < 0) throw std::runtime_error(path + ": cannot be opened: " + std::strerror(errno));
    std::string problem;
    struct stat status {};
    if (::fstat(descriptor, &status) != 0) {
      problem = std::string("cannot be examined: ") + std::strerror(errno);
    } else if (!S_ISREG(status.st_mode)) {
      problem = "is not a regular file";
    } else if (status.st_size == 0) {
      problem = "is empty";
    } else {
      size_ = static_cast<std::size_t>(status.st_size);
      data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
      if (data_ == MAP_FAILED) problem = std::string("cannot be mapped: ") + std::strerror(errno);
    }
    ::close(descriptor);  // a mapping outlives its descriptor
    if (!problem.empty()) throw std::runtime_error(path + ": " + problem);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() { ::munmap(data_, size_); }

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace llama
