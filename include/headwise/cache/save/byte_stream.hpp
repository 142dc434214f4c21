// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <istream>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <string_view>

#include "headwise/cache/save/cache_file_error.hpp"

namespace headwise::detail {

/// Where the bytes of a saved cache go. write throws CacheFileError.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void write(std::span<const std::byte> bytes) = 0;
};

/// Where they come from.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// As errors call it.
  virtual std::string_view name() const = 0;
  /// Bytes of all, where it must hold a saved cache and nothing else.
  virtual std::optional<Index> size() const = 0;
  /// Bytes still to be read as far as is known; what is known to be there may be given memory at once.
  virtual Index available() = 0;
  /// Bytes read: fewer than there is room for only at the end. Throws CacheFileError.
  virtual Index read(std::span<std::byte> to) = 0;
};

class StreamSink final : public ByteSink {
 public:
  explicit StreamSink(std::ostream& stream) : stream_(stream) {}
  void write(std::span<const std::byte> bytes) override {
    stream_.write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
    check();
    written_ += std::ssize(bytes);
  }
  /// What a full disk refuses may show only here.
  void flush() {
    stream_.flush();
    check();
  }

 private:
  void check() const {
    if (!stream_) fail_file("stream", written_, "cannot be written");
  }

  std::ostream& stream_;
  Index written_ = 0;
};

class StreamSource final : public ByteSource {
 public:
  explicit StreamSource(std::istream& stream) : stream_(stream) {}
  std::string_view name() const override { return "stream"; }
  std::optional<Index> size() const override { return {}; }  // others may follow
  Index available() override {
    std::streambuf& buffer = *stream_.rdbuf();
    const Index here = buffer.pubseekoff(0, std::ios::cur, std::ios::in);  // −1: cannot seek
    const Index end = here < 0 ? -1 : Index{buffer.pubseekoff(0, std::ios::end, std::ios::in)};
    if (end < 0) return 0;
    if (buffer.pubseekpos(here, std::ios::in) < 0) fail_file(name(), read_, "cannot be read");
    return end - here;
  }
  Index read(std::span<std::byte> to) override {
    stream_.read(reinterpret_cast<char*>(to.data()), std::ssize(to));
    const Index count = stream_.gcount();
    if (stream_.bad() || (stream_.fail() && !stream_.eof())) fail_file(name(), read_ + count, "cannot be read");
    read_ += count;
    return count;
  }

 private:
  std::istream& stream_;
  Index read_ = 0;
};

}  // namespace headwise::detail
