@fake_devices
Feature: GPU discovery
  A pool runs on the devices of its mask, and nowhere else.

  @OC-POOL-3020
  Scenario: Devices are found with stable ids and their memory
    Given the hive is running
    When I ask for the devices
    Then the devices should be "cpu,FAKE-0,FAKE-1"
    And each device should tell its memory

  @OC-POOL-3020
  Scenario Outline: A mask is resolved, and the pool stays inside it
    Given the model "demo" is "fake:demo"
    And the hive is running
    And pool "pool-0" is declared with model "demo" on devices "<mask>"
    When I preload pool "pool-0"
    Then pool "pool-0" should run on "<ids>" only

    Examples:
      | mask   | ids           |
      | 1      | FAKE-1        |
      | GPU0   | FAKE-0        |
      | FAKE-1 | FAKE-1        |
      | 0,1    | FAKE-0,FAKE-1 |
      | cpu    | cpu           |

  @OC-POOL-3020 @OC-POOL-3090
  Scenario Outline: A wrong mask is refused and says what exists
    Given the model "demo" is "fake:demo"
    And the hive is running
    When I declare pool "pool-0" with model "demo" on devices "<mask>"
    Then the answer should be an error "invalid_device_mask" with status 400
    And the answer should name "FAKE-0"

    Examples:
      | mask |
      | 7    |
      | 0,0  |

  @OC-POOL-3012
  Scenario: A pool that asked for a GPU never falls back to the CPU
    Given GPU 0 has 100 MiB
    And the hive is running
    When I preload pool "pool-0" with model "llama-3.1-8b-instruct"
    Then pool "pool-0" should become "unready"
    And pool "pool-0" should tell the cause "insufficient_memory"
    And pool "pool-0" should never have started a process

  @OC-POOL-3021
  Scenario: A split runs over both devices
    Given the model "demo" is "fake:demo"
    And the hive is running
    When I declare pool "pool-0" with model "demo" on devices "0,1" split "0.6,0.4"
    Then the answer should be 202
    When I preload pool "pool-0"
    Then pool "pool-0" should run on "FAKE-0,FAKE-1" only

  @OC-POOL-3021
  Scenario Outline: A split that cannot hold is refused
    Given the model "demo" is "fake:demo"
    And the hive is running
    When I declare pool "pool-0" with model "demo" on devices "0,1" split "<split>"
    Then the answer should be an error "invalid_request" with status 400

    Examples:
      | split   |
      | 0.6,0.6 |
      | 1.0     |

  @OC-POOL-3021
  Scenario: A split is capped by what the smallest device holds
    Given GPU 1 has 100 MiB
    And the model "demo" is "fake:demo?memory_bytes=1073741824"
    And the hive is running
    When I declare pool "pool-0" with model "demo" on devices "0,1" split "0.5,0.5"
    And I preload pool "pool-0"
    Then pool "pool-0" should tell the cause "insufficient_memory"
    And the fit of pool "pool-0" should name "FAKE-1"

  @OC-POOL-3030
  Scenario: Memory in use is tracked, and comes back
    Given the model "demo" is "fake:demo"
    And the hive is running
    And pool "pool-0" is ready with model "demo"
    Then GPU 0 should have some memory in use
    And the metric "skep_device_memory_used_bytes" should be above 0
    And GPU 1 should have no memory in use
    When I drain pool "pool-0" within 1 s
    Then GPU 0 should have no memory in use

  @OC-POOL-3030
  Scenario: The temperature of a device is told
    Given GPU 0 is at 96 °C
    And the hive is running
    Then the metric "skep_device_temperature_celsius" of device "FAKE-0" should become 96

  @OC-POOL-3010
  Scenario: A device that vanishes takes its pool out until it is back
    Given GPU 0 can vanish
    And the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When GPU 0 vanishes
    Then pool "pool-0" should tell the cause "device_error"
    And the verdicts of pool "pool-0" should have the reason "device_error"
    And pool "pool-0" should stay out, though it is tried again
    When GPU 0 comes back
    And I reset pool "pool-0"
    Then pool "pool-0" should become "ready"
