// SPDX-License-Identifier: MIT
#undef HEADWISE_CHECKED
#include "headwise/core/view.hpp"

float last_of(headwise::View<const float> view);

int main() {
  const float numbers[] = {1, 2};
  return last_of({numbers, 1, 1, 2}) == 2 ? 0 : 1;
}
