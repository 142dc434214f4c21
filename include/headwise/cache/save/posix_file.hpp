// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "headwise/cache/save/byte_stream.hpp"
#include "headwise/core/linkage.hpp"

// Files as the system gives them: the one place of system calls.

namespace headwise::detail {

/// An open file or folder, or −1.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  int number() const { return number_; }
  /// errno, or 0.
  int close() noexcept;

 private:
  int number_;
};

/// The new contents of a file, which becomes them at once or stays as it is: written to a temporary file in its folder, which
/// then takes its name. A link is followed; the permissions of a file that is replaced are kept. Unless committed, nothing
/// is left. All functions throw CacheFileError that names the path and the system's reason.
class ReplacementFile final : public ByteSink {
 public:
  /// `path` names no file or a regular one.
  explicit ReplacementFile(const std::string& path);
  ~ReplacementFile() override;
  void write(std::span<const std::byte> bytes) override;
  /// Returns when all is on disk under the new name.
  void commit();

 private:
  std::string name_, file_name_, temporary_;  // temporary_: empty when there is none
  Descriptor folder_, file_;
  Index written_ = 0;
};

/// A regular file to read.
class InputFile final : public ByteSource {
 public:
  explicit InputFile(const std::string& path);
  std::string_view name() const override { return name_; }
  std::optional<Index> size() const override { return size_; }
  Index available() override { return size_ - read_; }
  Index read(std::span<std::byte> to) override;

 private:
  std::string name_;
  Descriptor file_;
  Index size_ = 0, read_ = 0;
};

}  // namespace headwise::detail

#if !defined(HEADWISE_DECLARE_ONLY)

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>

namespace headwise::detail {

/// call() again while a signal interrupts it.
template <class Call>
inline auto uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

inline std::string quoted_file(const std::string& path) { return "cache file \"" + path + "\""; }

HEADWISE_API int Descriptor::close() noexcept {
  const int number = std::exchange(number_, -1);
  return number >= 0 && ::close(number) != 0 && errno != EINTR ? errno : 0;  // interrupted: closed all the same
}

HEADWISE_API ReplacementFile::ReplacementFile(const std::string& path) : name_(quoted_file(path)) {
  std::string target = path;
  struct stat old = {};
  const bool exists = ::stat(path.c_str(), &old) == 0;
  if (!exists && errno != ENOENT) fail_system(name_, 0, "cannot be reached", errno);
  if (exists) {
    if (!S_ISREG(old.st_mode)) fail_file(name_, 0, "is not a regular file, which could be replaced");
    const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
    if (!real) fail_system(name_, 0, "cannot be reached", errno);
    target = real.get();
  }
  const std::size_t slash = target.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : target.substr(0, slash + 1);
  file_name_ = slash == std::string::npos ? target : target.substr(slash + 1);

  folder_ = Descriptor(uninterrupted([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  if (folder_.number() < 0) fail_system(name_, 0, "its folder cannot be opened", errno);
  static std::atomic<unsigned> made{0};
  const mode_t mode = exists ? old.st_mode & 0777 : 0666;
  int error = EEXIST;
  while (error == EEXIST) {  // another's, of the same number in another space of process ids
    std::string temporary = ".headwise-" + std::to_string(::getpid()) + "-" + std::to_string(made++) + ".tmp";
    file_ = Descriptor(uninterrupted(
        [&] { return ::openat(folder_.number(), temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode); }));
    error = file_.number() < 0 ? errno : 0;
    if (error == 0) temporary_ = std::move(temporary);
  }
  if (error != 0) fail_system(name_, 0, "a temporary file in its folder cannot be made", error);
  // The umask took some away. Where a file system has no permissions to give, they stay fewer.
  if (exists) static_cast<void>(::fchmod(file_.number(), mode));
}

HEADWISE_API ReplacementFile::~ReplacementFile() {
  if (!temporary_.empty()) ::unlinkat(folder_.number(), temporary_.c_str(), 0);
}

HEADWISE_API void ReplacementFile::write(std::span<const std::byte> bytes) {
  constexpr std::size_t kMost = std::size_t{1} << 30;  // systems write less than 2 GiB at a time
  while (!bytes.empty()) {
    const auto count =
        uninterrupted([&] { return ::write(file_.number(), bytes.data(), std::min(bytes.size(), kMost)); });
    if (count <= 0) fail_system(name_, written_, "cannot be written", count < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    written_ += count;
  }
}

HEADWISE_API void ReplacementFile::commit() {
  if (uninterrupted([&] { return ::fsync(file_.number()); }) != 0)
    fail_system(name_, written_, "cannot be synced", errno);
  if (const int error = file_.close()) fail_system(name_, written_, "cannot be closed", error);
  if (::renameat(folder_.number(), temporary_.c_str(), folder_.number(), file_name_.c_str()) != 0)
    fail_system(name_, written_, "cannot be replaced", errno);
  temporary_.clear();
  // EINVAL: a file system that has no way to do so
  if (uninterrupted([&] { return ::fsync(folder_.number()); }) != 0 && errno != EINVAL)
    fail_system(name_, written_, "was replaced, but its folder cannot be synced", errno);
}

HEADWISE_API InputFile::InputFile(const std::string& path) : name_(quoted_file(path)) {
  // not to wait for the other end of a pipe
  file_ = Descriptor(uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
  if (file_.number() < 0) fail_system(name_, 0, "cannot be opened", errno);
  struct stat status = {};
  if (::fstat(file_.number(), &status) != 0) fail_system(name_, 0, "cannot be read", errno);
  if (!S_ISREG(status.st_mode)) fail_file(name_, 0, "is not a regular file");
  size_ = status.st_size;
}

HEADWISE_API Index InputFile::read(std::span<std::byte> to) {
  constexpr std::size_t kMost = std::size_t{1} << 30;
  Index done = 0;
  while (!to.empty()) {
    const auto count = uninterrupted([&] { return ::read(file_.number(), to.data(), std::min(to.size(), kMost)); });
    if (count < 0) fail_system(name_, read_, "cannot be read", errno);
    if (count == 0) break;
    to = to.subspan(static_cast<std::size_t>(count));
    read_ += count;
    done += count;
  }
  return done;
}

}  // namespace headwise::detail

#endif  // !HEADWISE_DECLARE_ONLY
