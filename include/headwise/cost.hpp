// SPDX-License-Identifier: MIT
#pragma once

// What attention costs in parameters, bytes and operations, before anything is built.
