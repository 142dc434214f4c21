// SPDX-License-Identifier: MIT
// Any shape, options, storage and source of keys: a call gives what the definition says, or, exactly where something is
// impossible, std::invalid_argument, having written nothing.
#include <stdexcept>
#include <string_view>

#include "tests/fuzz/attention/call.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace headwise::fuzz;
  Call call;
  try {
    read_call(Bytes({data, size}), call);
    const AllResults results = run(call);
    expect(call.verdict != Verdict::impossible, "an impossible call was made");
    check_results(call, results);
  } catch (const std::invalid_argument& error) {
    expect(std::string_view(error.what()).starts_with("headwise: "), "an error of another's");
    if (call.verdict == Verdict::possible) fault(std::string("a possible call was refused: ") + error.what());
  }
  return 0;
}
