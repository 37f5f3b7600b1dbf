Feature: Rollout
  Hosts are brought to what is declared; what fails is told, and changes nothing.

  @SK-ROLL-1001
  Scenario: A hive is installed
    Given 1 fresh host(s)
    And skep "1.0" is declared
    When I sync
    Then every host should be "installed"
    And every host should run skep "1.0"

  @SK-ROLL-1001
  Scenario: Many hives are installed at once
    Given 3 fresh host(s)
    When I sync
    Then every host should be "installed"
    And every host should run skep "1.0"

  @SK-ROLL-1002
  Scenario: A second run does nothing
    Given 3 fresh host(s)
    And skep "1.0" is installed
    When I sync
    Then every host should be "already_installed"

  @SK-ROLL-1003
  Scenario: Workers are installed
    Given 1 fresh host(s)
    And the worker "llama-cpp" of version "b1" with features "cpu" is declared
    And the worker "vllm" of version "0.11" with features "cpu" is declared
    When I sync
    Then every host should be "installed"
    And the manifest should list the workers "llama-cpp b1, vllm 0.11"

  @SK-ROLL-1003
  Scenario: An extra worker is removed when that is asked for
    Given 1 fresh host(s)
    And the worker "vllm" of version "0.11" with features "cpu" is declared
    And skep "1.0" is installed
    When no worker is declared
    And the option remove_extra
    And I sync
    Then the manifest should list the workers "-"

  @SK-ROLL-1004
  Scenario Outline: Upgrade and downgrade
    Given 1 fresh host(s)
    And skep "<before>" is installed
    When skep "<after>" is declared
    And I sync
    Then every host should be "upgraded"
    And every host should run skep "<after>"

    Examples:
      | before | after |
      | 1.0    | 2.0   |
      | 2.0    | 1.0   |

  @SK-ROLL-1004
  Scenario: Rollback
    Given 1 fresh host(s)
    And skep "1.0" is installed
    And skep "2.0" is installed
    When the option rollback
    And I sync
    Then every host should be "rolled_back"
    And every host should run skep "1.0"

  @SK-ROLL-1004
  Scenario: Force installs again what is there
    Given 1 fresh host(s)
    And skep "1.0" is installed
    When the option force
    And I sync
    Then every host should run skep "1.0"

  @SK-ROLL-1005
  Scenario: A dry run changes nothing
    Given 1 fresh host(s)
    When I look at what would be done
    Then every host should be "planned"
    And the host should have nothing of skep

  @SK-ROLL-1006
  Scenario: An unreachable host is unknown, and the others go on
    Given 3 fresh host(s)
    And the host cannot be reached
    When I sync
    Then the host should be "unknown" with the code "host_unreachable"
    And the other hosts should be "installed"

  @SK-ROLL-1006
  Scenario: A program that does not run is never switched to
    Given 1 fresh host(s)
    And skep "1.0" is installed
    And the new program refuses to run
    And skep "2.0" is declared
    When I sync
    Then the host should be "failed" with the code "step_failed"
    And the error should say "verify failed"
    And the host should still have skep "1.0"

  @SK-ROLL-1006
  Scenario: A build that fails shows its last lines
    Given 1 fresh host(s)
    And the worker "llama-cpp" of version "b1" with features "cpu" is declared
    And the engine's build fails
    When I sync
    Then the host should be "failed" with the code "step_failed"
    And the error should say "compile error at line 7"

  @SK-ROLL-1006
  Scenario: A home that cannot be written
    Given 1 fresh host(s)
    And the host's home cannot be written
    When I sync
    Then the host should be "failed" with the code "impossible_here"
    And the error should say "cannot be written"

  @SK-ROLL-1006
  Scenario: A wrong checksum
    Given 1 fresh host(s)
    And a release with a wrong checksum is declared
    When I sync
    Then the host should be "failed" with the code "step_failed"
    And the host should have nothing of skep

  @SK-ROLL-1007
  Scenario Outline: Features that the host does not have
    Given 1 fresh host(s)
    And the worker "llama-cpp" of version "b1" with features "<features>" is declared
    When I sync
    Then the host should be "failed" with the code "impossible_here"
    And the error should say "<missing>"

    Examples:
      | features  | missing     |
      | metal     | wants metal |
      | cpu, rocm | wants rocm  |

  @SK-ROLL-1008
  Scenario: Noise at login does not disturb
    Given 1 fresh host(s)
    And the login shell prints a banner
    When I sync
    Then every host should be "installed"

  @SK-ROLL-1009
  Scenario: Two syncs at once
    Given 1 fresh host(s)
    And skep "1.0" is declared
    When I sync twice at once
    Then one sync should have done the work and both should agree

  @SK-ROLL-1003
  Scenario: Many workers are installed on many hosts at once
    Given 3 fresh host(s)
    And the worker "llama-cpp" of version "b1" with features "cpu" is declared
    And the worker "vllm" of version "0.11" with features "cpu" is declared
    When I sync
    Then every host should be "installed"
    And the manifest should list the workers "llama-cpp b1, vllm 0.11"
    And the status should be "ok"

  @SK-ROLL-1002
  Scenario: The status follows what is declared
    Given 3 fresh host(s)
    And skep "1.0" is installed
    Then the status should be "ok"
    When skep "2.0" is declared
    Then the status should be "drift"

  @SK-ROLL-1010
  Scenario Outline: Ways to install
    Given 1 fresh host(s)
    And skep "1.0" is declared by "<method>"
    When I sync
    Then every host should be "installed"
    When I sync
    Then every host should be "already_installed"

    Examples:
      | method                         |
      | git                            |
      | git through the controller     |
      | release                        |
      | release through the controller |

  @SK-ROLL-1010
  Scenario: A host of another kind gets wheels of its own kind through the controller
    Given 1 fresh host(s)
    And the host is a "Linux aarch64"
    And skep "1.0" is declared by "git through the controller"
    When I sync
    Then every host should be "installed"

  @SK-ROLL-1010
  Scenario: An interpreter is not downloaded by a host that is sent everything
    Given 1 fresh host(s)
    And the host has uv and no Python
    And skep "1.0" is declared by "git through the controller"
    When I sync
    Then the host should be "failed" with the code "impossible_here"
    And the error should say "uv may not download one"
    And the host should have nothing of skep

  @SK-ROLL-1006
  Scenario: A repository that is not there
    Given 1 fresh host(s)
    And a repository that is not there is declared
    When I sync
    Then the host should be "failed" with the code "bad_reference"
    And the host should have nothing of skep

  @SK-ROLL-1006
  Scenario: A login that is refused is not tried again
    Given 3 fresh host(s)
    And the host refuses our key
    When I sync
    Then the host should be "failed" with the code "login_refused"
    And the other hosts should be "installed"
    And the report should count 1 failed of 3

  @SK-ROLL-1006
  Scenario: A full disk
    Given 1 fresh host(s)
    And the host's disk is full
    When I sync
    Then the host should be "failed" with the code "impossible_here"
    And the error should say "MiB are free"

  @SK-ROLL-1006
  Scenario Outline: A tool that is missing is named with what brings it
    Given 1 fresh host(s)
    And the host has no "<tool>"
    When I sync
    Then the host should be "failed" with the code "impossible_here"
    And the error should say "<says>"

    Examples:
      | tool      | says               |
      | flock     | install util-linux |
      | sha256sum | install coreutils  |

  @SK-ROLL-1006
  Scenario: One host of three fails, and the next run finishes it
    Given 3 fresh host(s)
    And the new program refuses to run
    When I sync
    Then the host should be "failed" with the code "step_failed"
    And the other hosts should be "installed"
    When the trouble is over
    And I sync
    Then the status should be "ok"

  @SK-ROLL-1011
  Scenario Outline: A connection that is cut is made again, and the work is finished
    Given 1 fresh host(s)
    And skep "1.0" is declared by "<method>"
    And the connection is cut when the host begins "<step>"
    When I sync
    Then every host should be "installed"
    And the report should count 1 recovered host(s)

    Examples:
      | method                         | step     |
      | git                            | clone    |
      | git                            | build    |
      | release                        | download |
      | release through the controller | send     |

  @SK-ROLL-1011
  Scenario Outline: An end in the middle leaves the old version, and the next run finishes
    Given 1 fresh host(s)
    And skep "1.0" is installed
    And skep "2.0" is declared
    When skep sync is ended by "<signal>" when the host begins "verify"
    Then the command should have ended with <code>
    And the host should still have skep "1.0"
    When I sync
    Then every host should run skep "2.0"

    Examples:
      | signal  | code |
      | SIGINT  | 130  |
      | SIGKILL | -9   |

  @SK-ROLL-1008
  Scenario: A clock that is years behind
    Given 1 fresh host(s)
    And the host's clock is years behind
    When I sync
    Then every host should be "installed"
    And the status should be "ok"

  @SK-ROLL-1007
  Scenario Outline: Features that the host has
    Given 1 fresh host(s)
    And the host has "<device>"
    And the worker "llama-cpp" of version "b1" with features "<features>" is declared
    When I sync
    Then every host should be "installed"
    And the manifest should list the workers "llama-cpp b1"

    Examples:
      | device | features  |
      | cuda   | cuda      |
      | metal  | metal     |
      | cuda   | cpu, cuda |
