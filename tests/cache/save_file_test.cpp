// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "tests/cache/fake_store.hpp"
#include "tests/cache/saved_bytes.hpp"
#include "tests/support/errors.hpp"

namespace headwise::testing {
namespace {

namespace fs = std::filesystem;

constexpr TileFormat kFormat{Storage::bf16, Storage::bf16, 2, 64, 64};

FakeStore store_of(Index tokens, unsigned seed) {
  FakeStore store({kFormat});
  store.fill(0, {0, 0, tokens}, seed);
  return store;
}

/// A folder of its own, which is empty at first.
class SaveFile : public ::testing::Test {
 protected:
  SaveFile() {
    std::string pattern = ::testing::TempDir() + "headwise_save_XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
  }
  ~SaveFile() override {
    std::error_code ignored;
    fs::permissions(folder_, fs::perms::owner_all, ignored);
    fs::remove_all(folder_, ignored);
  }

  std::set<std::string> names() const {
    std::set<std::string> result;
    for (const auto& entry : fs::directory_iterator(folder_)) result.insert(entry.path().filename().string());
    return result;
  }
  static std::string bytes_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  fs::path folder_;
};

/// What a child process makes of f: 0 where all of its expectations held. Limits and users change in it alone.
template <class F>
int status_of_child(F f) {
  const pid_t child = ::fork();
  if (child == 0) {
    f();
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_F(SaveFile, HoldsWhatAStreamHoldsAndIsRestored) {
  const FakeStore store = store_of(200, 1);
  save(store, 0, folder_ / "a.cache");  // a filesystem::path
  save(store, 0, (folder_ / "b.cache").string());
  EXPECT_EQ(bytes_of(folder_ / "a.cache"), saved(store));
  EXPECT_EQ(bytes_of(folder_ / "b.cache"), saved(store));
  EXPECT_EQ(names(), (std::set<std::string>{"a.cache", "b.cache"}));
  FakeStore other({kFormat});
  restore(other, 0, folder_ / "a.cache");
  EXPECT_EQ(saved(other), saved(store));
}

TEST_F(SaveFile, IsReplacedByAnotherLongerOrShorter) {
  for (const Index tokens : {200, 10, 100}) {
    save(store_of(tokens, 2), 0, folder_ / "a");
    EXPECT_EQ(bytes_of(folder_ / "a"), saved(store_of(tokens, 2)));
  }
}

TEST_F(SaveFile, KeepsItsPermissionsAndTheLinkThatLeadsToIt) {
  fs::create_directory(folder_ / "far");
  save(store_of(10, 1), 0, folder_ / "far" / "a");
  fs::permissions(folder_ / "far" / "a", fs::perms(0640));
  fs::create_symlink(fs::path("far") / "a", folder_ / "link");
  save(store_of(20, 2), 0, folder_ / "link");
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(fs::status(folder_ / "far" / "a").permissions(), fs::perms(0640));
  EXPECT_EQ(bytes_of(folder_ / "far" / "a"), saved(store_of(20, 2)));
}

TEST_F(SaveFile, MayBeInTheCurrentFolder) {
  EXPECT_EQ(status_of_child([&] {
              ASSERT_EQ(::chdir(folder_.c_str()), 0);
              save(store_of(70, 1), 0, "a");
              FakeStore other({kFormat});
              restore(other, 0, "a");
              EXPECT_EQ(saved(other), saved(store_of(70, 1)));
            }),
            0);
  EXPECT_EQ(names(), (std::set<std::string>{"a"}));
}

TEST_F(SaveFile, ThatCannotBeReachedIsNamedWithTheReasonOfTheSystem) {
  const FakeStore store = store_of(10, 1);
  FakeStore cache = store_of(20, 2);
  const auto before = cache.sequences;
  const std::string missing = folder_ / "missing" / "a", below_file = folder_ / "file" / "a";
  save(store, 0, folder_ / "file");
  for (const auto& [path, reason] :
       {std::pair(missing, std::errc::no_such_file_or_directory), std::pair(below_file, std::errc::not_a_directory)}) {
    const std::string text = std::make_error_code(reason).message();
    EXPECT_EQ(expect_file_error([&] { save(store, 0, path); }, {path, text}).code(), reason);
    EXPECT_EQ(expect_file_error([&] { restore(cache, 0, path); }, {path, text}).code(), reason);
  }
  EXPECT_EQ(cache.sequences, before);
  EXPECT_EQ(names(), (std::set<std::string>{"file"}));
}

TEST_F(SaveFile, IsNeverMadeOfWhatIsNoRegularFile) {
  const FakeStore store = store_of(10, 1);
  FakeStore cache = store_of(20, 2);
  fs::create_directory(folder_ / "folder");
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  for (const std::string& path :
       {(folder_ / "folder").string(), (folder_ / "pipe").string(), std::string("/dev/null")}) {
    expect_file_error([&] { save(store, 0, path); }, {path, "not a regular file"});
    expect_file_error([&] { restore(cache, 0, path); }, {path, "not a regular file"});
  }
  EXPECT_EQ(names(), (std::set<std::string>{"folder", "pipe"}));
}

TEST_F(SaveFile, StaysAsItWasInAFolderThatMayNotBeWritten) {
  save(store_of(10, 1), 0, folder_ / "a");
  fs::permissions(folder_, fs::perms(0555));
  EXPECT_EQ(status_of_child([&] {
              ASSERT_TRUE(::geteuid() != 0 || ::seteuid(65534) == 0);
              const auto error = expect_file_error([&] { save(store_of(20, 2), 0, folder_ / "a"); },
                                                   {(folder_ / "a").string(), "temporary file"});
              EXPECT_EQ(error.code(), std::errc::permission_denied);
            }),
            0);
  EXPECT_EQ(bytes_of(folder_ / "a"), saved(store_of(10, 1)));
  EXPECT_EQ(names(), (std::set<std::string>{"a"}));
}

TEST_F(SaveFile, StaysAsItWasWhereverTheDiskIsFull) {
  save(store_of(10, 1), 0, folder_ / "a");
  const FakeStore larger = store_of(200, 2);
  const auto size = static_cast<rlim_t>(saved(larger).size());
  for (const rlim_t limit : {rlim_t{0}, rlim_t{50}, rlim_t{104}, size / 2, size - 8, size - 1}) {
    EXPECT_EQ(status_of_child([&] {
                std::signal(SIGXFSZ, SIG_IGN);
                const rlimit most{limit, limit};
                ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &most), 0);
                const auto error = expect_file_error([&] { save(larger, 0, folder_ / "a"); },
                                                     {(folder_ / "a").string(), "cannot be written",
                                                      std::make_error_code(std::errc::file_too_large).message()});
                EXPECT_EQ(error.code(), std::errc::file_too_large);
              }),
              0)
        << limit;
    EXPECT_EQ(bytes_of(folder_ / "a"), saved(store_of(10, 1)));
    EXPECT_EQ(names(), (std::set<std::string>{"a"}));
  }
}

TEST_F(SaveFile, StaysAsItWasWhenTheCacheItselfThrows) {
  struct Failing : FakeStore {
    explicit Failing(FakeStore store) : FakeStore(std::move(store)) {}
    const std::byte* stored_tile(Index s, Index b, Index g, Index i) const {
      if (i == 2) throw std::runtime_error("no tile");
      return FakeStore::stored_tile(s, b, g, i);
    }
  };
  save(store_of(10, 1), 0, folder_ / "a");
  EXPECT_THROW(save(Failing(store_of(200, 2)), 0, folder_ / "a"), std::runtime_error);
  expect_error([&] { save(store_of(200, 2), 1, folder_ / "a"); }, {"sequence (1)"});
  EXPECT_EQ(bytes_of(folder_ / "a"), saved(store_of(10, 1)));
  EXPECT_EQ(names(), (std::set<std::string>{"a"}));
}

TEST_F(SaveFile, IsOneOfTheTwoVersionsWheneverTheProcessThatReplacesItIsKilled) {
  const FakeStore versions[] = {store_of(500, 1), store_of(900, 2)};
  const std::string bytes[] = {saved(versions[0]), saved(versions[1])};
  save(versions[0], 0, folder_ / "a");
  std::mt19937 generator(1);
  for (int round = 0; round < 50; ++round) {
    const pid_t child = ::fork();
    if (child == 0)
      for (int i = round;; ++i) save(versions[i % 2], 0, folder_ / "a");
    std::this_thread::sleep_for(std::chrono::microseconds(generator() % 30000));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    FakeStore cache({kFormat});
    restore(cache, 0, folder_ / "a");
    const std::string left = saved(cache);
    ASSERT_TRUE(left == bytes[0] || left == bytes[1]) << round;
  }
}

TEST_F(SaveFile, IsOneWholeVersionWhenThreadsReplaceItAtOnce) {
  const FakeStore versions[] = {store_of(100, 1), store_of(300, 2)};
  {
    std::vector<std::jthread> threads;
    for (const FakeStore& version : versions)
      threads.emplace_back([&] {
        for (int i = 0; i < 20; ++i) save(version, 0, folder_ / "a");
      });
  }
  FakeStore cache({kFormat});
  restore(cache, 0, folder_ / "a");
  EXPECT_TRUE(saved(cache) == saved(versions[0]) || saved(cache) == saved(versions[1]));
  EXPECT_EQ(names(), (std::set<std::string>{"a"}));
}

}  // namespace
}  // namespace headwise::testing
