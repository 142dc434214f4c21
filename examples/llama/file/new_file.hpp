// SPDX-License-Identifier: MIT
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace llama {

/// A file that appears whole or not at all: it is written beside its place under a name of its own, and commit() moves it
/// there. Without commit nothing is left and what was there before stays. Every function throws std::runtime_error that
/// names the file and what went wrong.
class NewFile {
 public:
  explicit NewFile(std::string path) : path_(std::move(path)), temporary_(path_ + ".XXXXXX") {
    descriptor_ = ::mkostemp(temporary_.data(), O_CLOEXEC);
    if (descriptor_ < 0) throw std::runtime_error(path_ + ": cannot be created: " + std::strerror(errno));
    buffer_.reserve(kBuffer);
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile() {
    if (descriptor_ < 0) return;
    ::close(descriptor_);
    ::unlink(temporary_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    size_ += bytes.size();
    if (buffer_.size() + bytes.size() > kBuffer) flush();
    if (bytes.size() > kBuffer)
      write_out(bytes);
    else
      buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  /// Bytes written so far.
  std::size_t size() const { return size_; }

  /// Moves the file to its place. It is on the disk then.
  void commit() {
    flush();
    struct stat old {};
    const mode_t mode = ::stat(path_.c_str(), &old) == 0 ? old.st_mode & 07777 : 0666 & ~current_umask();
    if (::fchmod(descriptor_, mode) != 0 || ::fsync(descriptor_) != 0) fail();
    if (::close(descriptor_) != 0) {
      descriptor_ = -1;
      ::unlink(temporary_.c_str());
      fail();
    }
    descriptor_ = -1;
    if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
      const int reason = errno;
      ::unlink(temporary_.c_str());
      errno = reason;
      fail();
    }
  }

 private:
  static constexpr std::size_t kBuffer = std::size_t{1} << 20;

  static mode_t current_umask() {
    const mode_t mask = ::umask(0);
    ::umask(mask);
    return mask;
  }
  void flush() {
    write_out(buffer_);
    buffer_.clear();
  }
  void write_out(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail();
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }
  [[noreturn]] void fail() const { throw std::runtime_error(path_ + ": cannot be written: " + std::strerror(errno)); }

  std::string path_, temporary_;
  int descriptor_;
  std::vector<std::byte> buffer_;
  std::size_t size_ = 0;
};

}  // namespace llama
